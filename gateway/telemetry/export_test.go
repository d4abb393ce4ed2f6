package telemetry

// AppendJSON is the encoder of the JSON access line, for benchmarks and fuzzing.
var AppendJSON = appendJSON

// AppendPlain is the encoder of the text access line, likewise.
var AppendPlain = appendPlain
