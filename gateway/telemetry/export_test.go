package telemetry

import "github.com/prometheus/client_golang/prometheus"

// AppendJSON is the encoder of the JSON access line, for benchmarks and fuzzing.
var AppendJSON = appendJSON

// AppendPlain is the encoder of the text access line, likewise.
var AppendPlain = appendPlain

// Describe sends what every metric is.
func (t *Telemetry) Describe(ch chan<- *prometheus.Desc) { t.metrics.registry.Describe(ch) }
