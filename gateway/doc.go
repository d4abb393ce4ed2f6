// Package gateway is the straight pass of a request: extract, classify,
// authenticate, look up, decide, refuse or forward, shadow, one event. Handler
// does the pass from top to bottom in one method; every step is a file of its
// own and, where it can be, a pure function.
//
// The package knows neither the legacy keyring nor OpenID Connect: it declares
// the one-method Authenticator that both implement. It writes no logs, metrics
// or spans: it fills one Event and hands it to a Recorder.
package gateway
