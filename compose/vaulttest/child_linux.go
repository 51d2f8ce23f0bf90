package vaulttest

import "syscall"

// endWithParent ends a child when its parent has gone, however that ended.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
