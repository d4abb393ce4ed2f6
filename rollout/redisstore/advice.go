package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"

	"github.com/redis/go-redis/v9"
)

// refusals are the errors of a server that somebody can do something about, by
// the word that they begin with.
var refusals = []struct{ word, advice string }{
	{"READONLY", "this server is a replica: name its master in the URL, or its Sentinels with ?master_name="},
	{"OOM", "the server is full: raise its maxmemory"},
	{"MISCONF", "the server cannot write to its disk: look at its log"},
	{"WRONGPASS", "look at the user and the password"},
	{"NOAUTH", "the server asks for a password: give one"},
	{"NOPERM", "the user's ACL allows too little: it needs the keys and the channel of the prefix"},
	{"LOADING", "the server has just started and reads its data: try again soon"},
	{"CLUSTERDOWN", "a node of the cluster is missing: look at CLUSTER INFO"},
	{"TRYAGAIN", "a slot is on its way to another node: try again soon"},
	{"MASTERDOWN", "this server is a replica that lost its master: name the master in the URL"},
}

// advice says what to do about an error, "" where the error says all that is
// known.
func advice(err error) string {
	for _, r := range refusals {
		if redis.HasErrorPrefix(err, r.word) {
			return r.advice
		}
	}
	var (
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
	)
	switch {
	case errors.As(err, &plain), errors.Is(err, errHandshake):
		return "if the server does not speak TLS at this port, use redis:// or its TLS port"
	case errors.As(err, &authority):
		return "name the authority that signed the server's certificate in redis.ca_file"
	case errors.As(err, &hostname):
		return "the URL must name the server as its certificate does"
	case errors.Is(err, io.EOF):
		return "the server hung up: if it wants TLS, use rediss://"
	default:
		return ""
	}
}
