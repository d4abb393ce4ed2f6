package telemetry

import "github.com/prometheus/client_golang/prometheus"

// AppendJSON is the encoder of the JSON access line, for benchmarks and fuzzing.
var AppendJSON = appendJSON

// AppendPlain is the encoder of the text access line, likewise.
var AppendPlain = appendPlain

// Metrics returns what the registry can export, as the client library writes each
// description: also what has no series yet.
func (t *Telemetry) Metrics() []string {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		t.metrics.registry.Describe(descriptions)
	}()
	var all []string
	for d := range descriptions {
		all = append(all, d.String())
	}
	return all
}
