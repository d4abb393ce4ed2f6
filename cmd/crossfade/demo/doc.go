// Package demo holds the pieces around the gateway that `crossfade demo`
// plays with: a built-in identity provider, a stand-in for Luigi's scheduler
// that answers as it was recorded, workers that replay recorded traffic, the
// agents beside them, and the live table.
//
// Nothing here knows the gateway: the pieces speak HTTP to it, or hand values
// to whoever wires them. Nothing here is meant for production, but for what the
// agents are made of.
package demo
