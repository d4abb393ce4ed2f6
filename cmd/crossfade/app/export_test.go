package app

// ConnectUpstream lets tests say which addresses the machine has.
var ConnectUpstream = connectUpstream

// ObservationOf is what an event teaches.
var ObservationOf = observation
