//go:build !linux

package process

import "time"

func sinceBoot() time.Duration { return 0 }

// Uptime is known on Linux only.
func Uptime() time.Duration { return 0 }
