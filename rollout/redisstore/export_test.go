package redisstore

// ParseLatch is parseLatch, for its fuzz target.
var ParseLatch = parseLatch
