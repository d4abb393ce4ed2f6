package token

import (
	"errors"
	"fmt"
)

// Reaches says why a source of a kind cannot give tokens for something else than
// the one that it gives anyway, nil if it can or if nothing is asked for: some know
// one token, some know audiences alone. A kind that this package does not know is
// taken to be able to.
func Reaches(kind string, r Request) error {
	nothing := r.Audience == "" && len(r.Scopes) == 0 && r.Resource == ""
	switch kind {
	case "file", "aws":
		if !nothing {
			return fmt.Errorf("the token source %s has one token, which is for whom it is: use another source, such as token_exchange of that token", kind)
		}
	case "github_actions", "gcp":
		if len(r.Scopes) > 0 || r.Resource != "" {
			return fmt.Errorf("the token source %s knows audiences, and neither scopes nor resources", kind)
		}
		if r.Audience == "" && kind == "gcp" {
			return errors.New("the token source gcp issues no token without an audience")
		}
	}
	return nil
}
