package token

import (
	"errors"
)

// Reaches says why a source cannot give tokens for what is asked, nil if it can or
// if nothing is asked for: some have one token, some know audiences alone.
func Reaches(s Source, r Request) error {
	nothing := r.Audience == "" && len(r.Scopes) == 0 && r.Resource == ""
	if limited, ok := s.(interface{ Reaches(Request) error }); ok && !nothing {
		return limited.Reaches(r)
	}
	return nil
}

// Reaches has a token that is for whom it is.
func (s *fileSource) Reaches(Request) error {
	return errors.New("the token source " + s.kind + " has one token, and none for others: use another source, such as token_exchange of that token")
}

// Reaches knows audiences.
func (s *githubSource) Reaches(r Request) error { return audienceAlone("github_actions", r) }

// Reaches knows audiences.
func (s *gcpSource) Reaches(r Request) error { return audienceAlone("gcp", r) }

func audienceAlone(kind string, r Request) error {
	if len(r.Scopes) > 0 || r.Resource != "" || r.Audience == "" {
		return errors.New("the token source " + kind + " knows an audience, and neither scopes nor a resource")
	}
	return nil
}
