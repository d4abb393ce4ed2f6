package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

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
	{"WRONGTYPE", moveAway},
	{"MASTERDOWN", "this server is a replica that lost its master: name the master in the URL"},
}

// moveAway is what to do about a key that somebody else has written.
const moveAway = "the key does not hold what Crossfade keeps there: look at it with TYPE, then RENAME or DEL it"

// damages are what replies say when a key holds what it should not: the word for a
// key of another kind, for a HyperLogLog that is none, and the name of a script, in
// which nothing else fails that is not the server's state.
var damages = []string{"WRONGTYPE", "INVALIDOBJ", "user_script", "Error running script"}

// passing are the words of replies, beyond refusals, that are about the server's
// state or its configuration, also when a script met with it. Servers before 7.0
// put them behind the script's name.
var passing = []string{"BUSY", "NOSCRIPT", "NOREPLICAS", "MOVED", "ASK ", "ACL failure", "can't run this command", "can't access at least one"}

// incurable reports whether an error says that the same call will fail for as long
// as the keys are what they are. What is not known for sure is taken to pass.
func incurable(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	text := reply.Error()
	has := func(word string) bool { return strings.Contains(text, word) }
	if slices.ContainsFunc(passing, has) {
		return false
	}
	for _, r := range refusals {
		if r.advice != moveAway && has(r.word) {
			return false
		}
	}
	return slices.ContainsFunc(damages, has)
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
		waited    net.Error
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
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: start the server, or name the right address"
	case errors.As(err, &waited) && waited.Timeout():
		return "the server does not answer in time: look whether it hangs, or what keeps this machine from it"
	default:
		return ""
	}
}
