package app

// ConnectUpstream lets tests say which addresses the machine has.
var ConnectUpstream = connectUpstream
