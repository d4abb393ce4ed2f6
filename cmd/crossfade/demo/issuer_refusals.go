package demo

import (
	"context"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// errNotOffered is the answer to every flow with people, sessions, refresh
// tokens or signed assertions in it.
var errNotOffered = errors.New("the demo's identity provider offers client credentials only")

// refusals answers the part of op.Storage that belongs to those flows.
type refusals struct{}

func (refusals) CreateAuthRequest(context.Context, *oidc.AuthRequest, string) (op.AuthRequest, error) {
	return nil, errNotOffered
}

func (refusals) AuthRequestByID(context.Context, string) (op.AuthRequest, error) {
	return nil, errNotOffered
}

func (refusals) AuthRequestByCode(context.Context, string) (op.AuthRequest, error) {
	return nil, errNotOffered
}
func (refusals) SaveAuthCode(context.Context, string, string) error { return errNotOffered }
func (refusals) DeleteAuthRequest(context.Context, string) error    { return errNotOffered }

func (refusals) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errNotOffered
}

func (refusals) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, op.ErrInvalidRefreshToken
}
func (refusals) TerminateSession(context.Context, string, string) error { return errNotOffered }

func (refusals) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrInvalidRequest().WithDescription("%s", errNotOffered)
}

func (refusals) GetRefreshTokenInfo(context.Context, string, string) (userID, tokenID string, err error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (refusals) GetClientByClientID(context.Context, string) (op.Client, error) {
	return nil, errNotOffered
}

func (refusals) AuthorizeClientIDSecret(context.Context, string, string) error { return errNotOffered }

func (refusals) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return errNotOffered
}

func (refusals) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return errNotOffered
}

func (refusals) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNotOffered
}

func (refusals) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotOffered
}

func (refusals) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNotOffered
}
