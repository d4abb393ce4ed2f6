package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"crossfade/config"
)

func (p *program) initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration",
		Example: `  crossfade init luigi --htpasswd /etc/nginx/luigi.htpasswd --issuer https://acme.okta.com/oauth2/luigi
  crossfade init http --upstream http://127.0.0.1:9000 --htpasswd users.htpasswd --issuer https://idp.example/`,
	}
	for _, kind := range []string{"luigi", "http"} {
		c.AddCommand(p.initKind(kind))
	}
	return c
}

func (p *program) initKind(kind string) *cobra.Command {
	var to string
	var t config.TemplateValues
	var force bool
	c := &cobra.Command{
		Use:     kind,
		Short:   "Write a commented first configuration for profile " + kind,
		Example: "  crossfade init " + kind + " --htpasswd users.htpasswd --issuer https://idp.example/ --audience api://" + kind,
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVarP(&to, "to", "w", "crossfade.yaml", "file to write; - is stdout")
	c.Flags().BoolVar(&force, "force", false, "overwrite the file")
	c.Flags().StringVar(&t.Upstream, "upstream", "", "the service behind the gateway")
	c.Flags().StringVar(&t.Listen, "listen", "", "where clients connect")
	c.Flags().StringVar(&t.Htpasswd, "htpasswd", "", "password file of the legacy users")
	c.Flags().StringVar(&t.Issuer, "issuer", "", "the OIDC issuer's URL")
	c.Flags().StringVar(&t.Audience, "audience", "", "the audience that tokens must have")
	c.Flags().StringVar(&t.Redis, "redis", "", "where percentages are kept")
	c.RunE = func(*cobra.Command, []string) error {
		text, err := config.Template(kind, t)
		if err != nil {
			return usage("%w\nGive each as a flag of that name, for instance --htpasswd users.htpasswd.", err)
		}
		if to == "-" {
			_, err := fmt.Fprint(p.stdout, text)
			return err
		}
		mode := os.O_CREATE | os.O_WRONLY | os.O_EXCL
		if force {
			mode = os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		}
		f, err := os.OpenFile(to, mode, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return usage("%s exists already and is left as it is: name another file with --to, or use --force", to)
		}
		if err != nil {
			return err
		}
		if _, err := f.WriteString(text); err != nil {
			_ = f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(p.stderr, "Wrote %s. Next:\n  crossfade check %s --connect\n  crossfade serve --config %s\n", to, to, to)
		return nil
	}
	return c
}
