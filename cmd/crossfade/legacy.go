package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"crossfade/gateway/identity"
	"crossfade/legacy"
)

func (p *program) legacyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "legacy",
		Short:   "Work with static credentials",
		Example: "  crossfade legacy hash --user svc-etl >> luigi.htpasswd",
	}
	c.AddCommand(p.legacyHash())
	return c
}

func (p *program) legacyHash() *cobra.Command {
	var userName, scheme string
	var cost int
	c := &cobra.Command{
		Use:   "hash",
		Short: "Hash a password for an htpasswd file, or digest a key for a key file",
		Long: `Read a secret from stdin, or ask for it on a terminal, and print what belongs
into a file: a hash for htpasswd files, or with --scheme sha256 the digest for
files of API keys and static bearer tokens. The secret is never an argument,
where other users of the machine could read it.`,
		Example: `  crossfade legacy hash --user svc-etl >> luigi.htpasswd
  printf %s "$KEY" | crossfade legacy hash --scheme sha256`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 { // not repeated: it may be the secret
				return errors.New("the secret is read from stdin, never from an argument (consider one that stood on a command line leaked)")
			}
			return nil
		},
	}
	schemes := []string{"bcrypt", "sha512-crypt", "sha256-crypt", "sha256"}
	c.Flags().StringVar(&userName, "user", "", "print a whole htpasswd line for this user")
	c.Flags().StringVar(&scheme, "scheme", schemes[0], strings.Join(schemes, ", "))
	c.Flags().IntVar(&cost, "cost", 0, "bcrypt's cost or the crypts' rounds; 0 is the default")
	_ = c.RegisterFlagCompletionFunc("scheme", cobra.FixedCompletions(schemes, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(*cobra.Command, []string) error {
		if strings.ContainsAny(userName, ":\r\n") {
			return usage("--user %q: a user name holds no colon and no line break", userName)
		}
		if scheme == "sha256" && (userName != "" || cost != 0) {
			return usage("--scheme sha256 is for key files: --user and --cost have no meaning there")
		}
		secret, err := p.readSecret("Secret: ")
		if err != nil {
			return err
		}
		if scheme == "sha256" {
			_, err := fmt.Fprintln(p.stdout, legacy.Digest(secret))
			return err
		}
		hash, err := legacy.Hash(secret, scheme, cost)
		if err != nil {
			return usage("%w", err)
		}
		if userName != "" {
			hash = userName + ":" + hash
		}
		_, err = fmt.Fprintln(p.stdout, hash)
		return err
	}
	return c
}

// maxSecret bounds what is read from stdin as one secret, in bytes.
const maxSecret = 64 << 10

// readSecret reads one line: without echo on a terminal, else from stdin.
func (p *program) readSecret(prompt string) (identity.Secret, error) {
	if f, ok := p.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprint(p.stderr, prompt)
		text, err := term.ReadPassword(int(f.Fd()))
		_, _ = fmt.Fprintln(p.stderr)
		if err != nil {
			return identity.Secret{}, fmt.Errorf("reading the secret: %w", err)
		}
		return notEmpty(string(text))
	}
	line, err := bufio.NewReader(io.LimitReader(p.stdin, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return identity.Secret{}, fmt.Errorf("reading the secret: %w", err)
	}
	return notEmpty(strings.TrimRight(line, "\r\n"))
}

func notEmpty(text string) (identity.Secret, error) {
	if text == "" {
		return identity.Secret{}, usage("there is no secret on stdin: pipe it in, or run the command on a terminal")
	}
	return identity.NewSecret(text), nil
}
