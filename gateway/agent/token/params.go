package token

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// maxToken bounds a token in bytes. The gateway takes less.
const maxToken = 64 << 10

// Params say how a Source obtains tokens. Each kind reads the fields that its
// word names and no others. Files are read anew for each token, so that a
// rotation needs no restart.
type Params struct {
	// Issuer is the identity provider, whose metadata names the token endpoint
	// (client_credentials, token_exchange). TokenURL names it instead.
	Issuer, TokenURL string
	// ClientID is the name of the client at the provider (client_credentials; for
	// token_exchange optional).
	ClientID string
	// ClientAuth is how the client proves itself to the token endpoint, one of
	// the Auth constants. "" is what the files below allow, else nothing.
	ClientAuth string
	// SecretFile holds the client secret.
	SecretFile string
	// KeyFile holds the private key of private_key_jwt: PEM or a JWK. KeyID is
	// its kid; "" for that of the JWK, or none.
	KeyFile, KeyID string
	// CertFile and CertKeyFile hold the client's certificate chain and its key in
	// PEM (tls_client_auth).
	CertFile, CertKeyFile string
	// CAFile holds the authorities that are trusted instead of the system's; ""
	// for the system's (client_credentials, token_exchange).
	CAFile string
	// SubjectTokenFile holds the token that is exchanged, of SubjectTokenType;
	// DefaultSubjectTokenType when "". RequestedTokenType is what to get for it;
	// "" leaves it to the provider (token_exchange).
	SubjectTokenFile, SubjectTokenType, RequestedTokenType string
	// File holds the token itself (file).
	File string
	// Command is the program and its arguments; no shell sees them (exec).
	Command []string
	// ServiceAccount is whose token the metadata server is to issue; "default"
	// when "" (gcp).
	ServiceAccount string
	// Timeout bounds the source's own work for one token; DefaultTimeout when 0.
	Timeout time.Duration
	// Getenv reads the environment; os.Getenv when nil.
	Getenv func(string) string
}

// kinds are the sources by their words, in the order of documentation.
func kinds() []kind {
	return []kind{
		{"client_credentials", func(p Params) (Source, error) { return newOAuth("client_credentials", p) }},
		{"token_exchange", func(p Params) (Source, error) { return newOAuth("token_exchange", p) }},
		{"github_actions", newGitHub},
		{"gcp", newGCP},
		{"aws", newAWS},
		{"exec", newExec},
		{"file", newFile},
	}
}

type kind struct {
	word string
	make func(Params) (Source, error)
}

// Kinds are the words for New, in the order of documentation.
func Kinds() []string {
	var words []string
	for _, k := range kinds() {
		words = append(words, k.word)
	}
	return words
}

// New returns the source of a kind, one of Kinds. It does no I/O: what a file
// holds or a provider says shows with the first token. The error names every
// mistake of the parameters, joined.
func New(kind string, p Params) (Source, error) {
	if p.Getenv == nil {
		p.Getenv = os.Getenv
	}
	for _, k := range kinds() {
		if k.word != kind {
			continue
		}
		s, err := k.make(p)
		if p.Timeout < 0 {
			err = errors.Join(err, fmt.Errorf("a token cannot be waited for for %s", p.Timeout))
		}
		if err != nil {
			return nil, fmt.Errorf("token source %s: %w", kind, err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("token source %q is not known: use one of %s", kind, strings.Join(Kinds(), ", "))
}
