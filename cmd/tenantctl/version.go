package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/smarteros/deaddrop/cmd/tenantctl/internal/output"
)

// version is set by the linker.
var version = ""

// build is what the command answers.
type build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version
			if info, ok := debug.ReadBuildInfo(); v == "" && ok {
				v = info.Main.Version
			}
			built := build{v, runtime.Version(), runtime.GOOS, runtime.GOARCH}
			format := output.Format(cmd.Flag("output").Value.String())
			return format.Write(cmd.OutOrStdout(), built, func() output.Rows {
				return output.Rows{Head: []string{fmt.Sprintf("tenantctl %s %s %s/%s", v, built.Go, built.OS, built.Arch)}}
			})
		},
	}
}
