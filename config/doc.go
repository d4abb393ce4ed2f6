// Package config loads the configuration of Crossfade: built-in defaults, then
// one YAML file, then CROSSFADE_ environment variables, then command line
// flags, each over the one before.
//
// Loading is strict. An unknown key, a wrong type, a value out of range, a key
// that stands twice or a file that cannot be read is a [Mistake] with file,
// line, key and the nearest right spelling, and all mistakes are reported at
// once as [Errors]. The struct types below are the only list of keys: files,
// environment variables and flags are all checked against them by reflection.
//
// A duration is like 30s, 5m or 14d, a share like 0.01 or 1%, a size like 4MiB.
//
// Relative paths are relative to the file that names them; in environment
// variables and flags to the working directory. Secrets are of types that
// print themselves as "[redacted]".
//
// The package imports nothing else of Crossfade.
package config
