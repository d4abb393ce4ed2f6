package app

// ConnectUpstream lets tests say which addresses the machine has.
var ConnectUpstream = connectUpstream

// Unseen is why nothing is said of teams while other gateways are not seen.
var Unseen = unseen

// ObservationOf is what an event teaches.
var ObservationOf = observation
