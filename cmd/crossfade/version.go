package main

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=v1.2.3) where the tool chain cannot
// find it out: where the sources are built without their repository, as in an image.
var version string

// build is what this program was built from.
type build struct {
	// Version is a tag like v1.2.3, between tags the tool chain's name for a commit
	// (v1.2.4-0.20260512092711-8a89bd6388cc; +dirty if files were changed since), or
	// dev if neither is known.
	Version string `json:"version"`
	// Revision is the commit, and Time when it was made; empty if unknown.
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	// Modified tells that the sources were not quite those of the commit.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// newBuild reads what the linker was told, and what the tool chain noted: since Go
// 1.24 the version of the main module is that of the repository
// (https://go.dev/doc/go1.24#go-command). The same commit, tool chain and platform
// say the same whoever builds, and wherever. info may be nil.
func newBuild(linked string, info *debug.BuildInfo) build {
	b := build{Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	module := ""
	if info != nil {
		module = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.time":
				b.Time = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if module == "(devel)" {
		module = ""
	}
	b.Version = cmp.Or(linked, module, "dev")
	return b
}

// thisBuild is the one that runs.
func thisBuild() build {
	info, _ := debug.ReadBuildInfo()
	return newBuild(version, info)
}

func (p *program) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  crossfade version -o json",
		Args:    cobra.NoArgs,
	}
	out := outputFlag(c, "table", "json", "yaml")
	c.RunE = func(*cobra.Command, []string) error {
		if err := out.check(); err != nil {
			return err
		}
		b := thisBuild()
		revision := b.Revision
		if b.Modified {
			revision += " and changes"
		}
		return out.write(p.stdout, b, table{
			{"crossfade", b.Version}, {"revision", revision}, {"time", b.Time}, {"go", b.Go}, {"platform", b.Platform},
		})
	}
	return c
}
