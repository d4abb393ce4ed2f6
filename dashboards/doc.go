// Package dashboards holds the tests of what people install to watch gateways:
// rules for Prometheus in rules, and the runbook that their alerts lead to. It has
// no code of its own, and imports nothing of the gateway: what is tested are files,
// as somebody else would install them.
package dashboards
