package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"crossfade/gateway/identity"
)

// How a client proves itself to a token endpoint: the words of the registry
// "OAuth Token Endpoint Authentication Methods".
const (
	AuthBasic         = "client_secret_basic"         // RFC 6749 section 2.3.1, in the header
	AuthPost          = "client_secret_post"          // the same in the body
	AuthPrivateKeyJWT = "private_key_jwt"             // RFC 7523 section 2.2
	AuthTLS           = "tls_client_auth"             // RFC 8705 section 2.1
	AuthSelfSignedTLS = "self_signed_tls_client_auth" // RFC 8705 section 2.2
	AuthNone          = "none"                        // a public client
)

// assertionLife is how long an assertion is good: for one request.
const assertionLife = 60 * time.Second

// minRSABits is the least that RFC 7518 section 3.3 allows.
const minRSABits = 2048

// prover is how one client proves itself.
type prover struct {
	clientID, method, secretFile, keyFile, keyID string
}

// proof is what goes with one request.
type proof struct {
	secret identity.Secret
	style  oauth2.AuthStyle
	params url.Values
	shown  identity.Secret // the assertion, which must not be repeated either
}

// newProver chooses the method that the files allow, unless one is given, and
// names what is missing for it.
func newProver(p Params) (prover, error) {
	v := prover{clientID: p.ClientID, method: p.ClientAuth, secretFile: p.SecretFile, keyFile: p.KeyFile, keyID: p.KeyID}
	if v.method == "" {
		switch {
		case p.SecretFile != "":
			v.method = AuthBasic
		case p.KeyFile != "":
			v.method = AuthPrivateKeyJWT
		case p.CertFile != "":
			v.method = AuthTLS
		default:
			v.method = AuthNone
		}
	}
	known := []string{AuthBasic, AuthPost, AuthPrivateKeyJWT, AuthTLS, AuthSelfSignedTLS, AuthNone}
	missing := func(what string) error { return fmt.Errorf("%s needs %s", v.method, what) }
	var errs []error
	switch v.method {
	case AuthBasic, AuthPost:
		if p.SecretFile == "" {
			errs = append(errs, missing("a file with the client's secret"))
		}
	case AuthPrivateKeyJWT:
		if p.KeyFile == "" {
			errs = append(errs, missing("a file with the client's private key"))
		}
	case AuthTLS, AuthSelfSignedTLS:
		if p.CertFile == "" {
			errs = append(errs, missing("a file with the client's certificate"))
		}
	case AuthNone:
	default:
		errs = append(errs, fmt.Errorf("client authentication %q is not known: use one of %s", v.method, strings.Join(known, ", ")))
	}
	if slices.Contains(known[:5], v.method) && p.ClientID == "" {
		errs = append(errs, missing("the client's id"))
	}
	if (p.CertFile == "") != (p.CertKeyFile == "") {
		errs = append(errs, errors.New("a client certificate needs both its file and the file of its key"))
	}
	return v, errors.Join(errs...)
}

// prove reads the secret or signs an assertion for the endpoint.
func (v prover) prove(endpoint string, now time.Time) (proof, error) {
	switch v.method {
	case AuthBasic, AuthPost:
		secret, err := readSecret(v.secretFile)
		if err != nil {
			return proof{}, fmt.Errorf("read the client's secret: %w", err)
		}
		if v.method == AuthPost {
			return proof{secret: secret, style: oauth2.AuthStyleInParams}, nil
		}
		return proof{secret: secret, style: oauth2.AuthStyleInHeader}, nil
	case AuthPrivateKeyJWT:
		assertion, err := v.assert(endpoint, now)
		if err != nil {
			return proof{}, fmt.Errorf("sign an assertion with the key in %s: %w", v.keyFile, err)
		}
		return proof{
			style: oauth2.AuthStyleInParams,
			params: url.Values{
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
				"client_assertion":      {assertion},
			},
			shown: identity.NewSecret(assertion),
		}, nil
	default: // the certificate is in the connection, and RFC 8705 section 2 wants client_id in the body
		return proof{style: oauth2.AuthStyleInParams}, nil
	}
}

// assert signs the JWT of RFC 7523 section 3: issuer and subject are the
// client, the audience is the token endpoint, and the id is never used again.
func (v prover) assert(endpoint string, now time.Time) (string, error) {
	raw, err := readSecret(v.keyFile)
	if err != nil {
		return "", err
	}
	key, err := parseKey(raw)
	if err != nil {
		return "", err
	}
	if v.keyID != "" {
		key.KeyID = v.keyID
	}
	algorithm, err := algorithmOf(key)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", errors.New("the key does not fit its algorithm")
	}
	return jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: v.clientID, Subject: v.clientID, Audience: jwt.Audience{endpoint},
		ID: rand.Text(), IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(assertionLife)),
	}).Serialize()
}

// parseKey reads a private key in PEM (PKCS #8, PKCS #1 or SEC 1) or a JWK.
// Its errors repeat nothing of what they read.
func parseKey(raw identity.Secret) (jose.JSONWebKey, error) {
	text := []byte(raw.Reveal())
	block, _ := pem.Decode(text)
	if block == nil {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) != nil || key.IsPublic() || !key.Valid() {
			return jose.JSONWebKey{}, errors.New("it holds neither a private key in PEM nor a private JWK")
		}
		return key, nil
	}
	if strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		return jose.JSONWebKey{}, errors.New("the key is encrypted: store it decrypted, readable to this user alone")
	}
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		return jose.JSONWebKey{Key: key}, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return jose.JSONWebKey{Key: key}, nil
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return jose.JSONWebKey{Key: key}, nil
	}
	return jose.JSONWebKey{}, errors.New("the PEM block is no private key of PKCS #8, PKCS #1 or SEC 1")
}

// algorithmOf returns the algorithm that fits the type of a key (RFC 7518
// section 3.1, RFC 8037 section 3.1), or the one that its JWK names.
func algorithmOf(key jose.JSONWebKey) (jose.SignatureAlgorithm, error) {
	switch k := key.Key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSABits {
			return "", fmt.Errorf("an RSA key of %d bits is too short (RFC 7518 section 3.3 wants %d)", k.N.BitLen(), minRSABits)
		}
		rsaAlgorithms := []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		if named := jose.SignatureAlgorithm(key.Algorithm); slices.Contains(rsaAlgorithms, named) {
			return named, nil
		}
		return jose.RS256, nil
	case *ecdsa.PrivateKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
		return "", errors.New("the curve of the key is none of P-256, P-384 and P-521")
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	default:
		return "", errors.New("the key is none of RSA, EC and Ed25519")
	}
}
