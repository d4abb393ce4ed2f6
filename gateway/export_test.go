package gateway

// IsKnown lets tests recognize scripts of their own.
var IsKnown = isKnown

// ClientRun lets tests count what it allocates.
var ClientRun = clientRun

// SampleOf lets tests count what a sample allocates.
var SampleOf = (*Handler).sample
