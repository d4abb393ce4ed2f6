package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"crossfade/rollout"
)

// The reasons of the admin API that a command answers to by itself.
const (
	reasonBlocked = "retirement_blocked"
	reasonRoute   = "route_unknown"
)

// adminProblem is a refusal of the API.
type adminProblem struct {
	Status  int    `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Do      string `json:"do"`
}

// Error implements error.
func (a *adminProblem) Error() string {
	switch a.Reason {
	case reasonBlocked: // says it all, in the words that there are without the API
		return a.Message
	case reasonRoute:
		return "the gateway's admin API does not know this: it is of an older version than this command"
	default:
		said := strings.TrimPrefix(a.Message, a.Reason+": ") // errors of the store begin with it
		if !strings.HasSuffix(said, ".") {
			said += "."
		}
		return fmt.Sprintf("%s: %s %s", a.Reason, said, a.Do)
	}
}

// Is makes what may pass by itself an unavailable store, as it is without the API.
func (a *adminProblem) Is(target error) bool {
	return target == rollout.ErrUnavailable && a.Status == http.StatusServiceUnavailable
}

// exit is the refusal as an error with its exit code.
func (a *adminProblem) exit() error {
	codes := map[int]int{
		http.StatusPreconditionFailed: exitConflict, http.StatusConflict: exitRefused, http.StatusServiceUnavailable: exitStore,
		http.StatusBadRequest: exitUsage, http.StatusNotFound: exitUsage, http.StatusUnprocessableEntity: exitUsage,
	}
	code, ok := codes[a.Status]
	if !ok {
		code = exitFailure
	}
	return &exitError{code, a}
}

// awayError is an API that is not there just now: to those who read it again and
// again it is what a store is that is away.
type awayError struct{ error }

// Is implements the interface of errors.Is.
func (awayError) Is(target error) bool { return target == rollout.ErrUnavailable }

// Unwrap returns what happened.
func (e awayError) Unwrap() error { return e.error }

// unreached says why the API cannot be asked and what to do about it. What
// somebody must mend on purpose is no API that is away.
func (a *adminAPI) unreached(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) { // what was asked was named
		err = outer.Err
	}
	host := a.base.Host
	mend := func(format string, args ...any) error { return &exitError{exitStore, fmt.Errorf(format, args...)} }
	var (
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		name      *net.DNSError
		op        *net.OpError
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &plain):
		return mend("%s does not speak TLS: set admin.tls in the gateway's configuration, or use http:// if it is on this machine", host)
	case errors.As(err, &authority) && a.caFile != "":
		return mend("the certificate of %s is of another authority than that of %s: name the right one by --admin-ca", host, a.caFile)
	case errors.As(err, &authority):
		return mend("the certificate of %s is of an authority that nobody here trusts: name the authority's certificate by --admin-ca FILE", host)
	case errors.As(err, &hostname):
		return mend("the certificate of %s is for another name (%w): name the gateway as its certificate does", host, hostname)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return mend("the certificate of %s has expired, or is not valid yet (%s): put a good one under admin.tls, which the gateway takes up without a restart", host, invalid.Detail)
	case errors.As(err, &invalid):
		return mend("the certificate of %s cannot be used: %w", host, invalid)
	case errors.Is(err, syscall.ECONNREFUSED):
		return away("nothing listens at %s (connection refused): does the gateway run, and is admin.address set in its configuration?", host)
	case errors.As(err, &name):
		return away("the host of --admin is not known: %w", name)
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return away("%s does not answer in time: is that the address of the admin listener, and does something keep this machine from it?", host)
	case errors.As(err, &op):
		err = op
	}
	return away("the admin API cannot be reached: %w", err)
}

func away(format string, args ...any) error {
	return &exitError{exitStore, awayError{fmt.Errorf(format, args...)}}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
