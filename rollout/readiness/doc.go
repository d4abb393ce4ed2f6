// Package readiness says from the evidence whether a team may go on: how far its
// percentage may be raised, what is in the way and whose job that is, and when
// its static credentials can be switched off.
//
// Judge is a pure function of Facts, which hold the time too; whoever calls it
// reads the evidence. The same report stands behind the guard of the rollout,
// the command line, the API, the metrics and the pages, so that none of them can
// say something else than the others.
//
// # The unit
//
// A worker's run, which is bad if any of its calls would break. Pings and
// retries are part of it. A run belongs to the day on which it started.
//
// # The rule for failures that nobody has seen yet
//
// Of n runs k were bad; the true share of bad ones is below the one-sided
// Clopper-Pearson bound U with the confidence of the limits, which is high
// because people look every day (see UpperBound). A raise must keep the broken
// runs that it may cause a day, step x runs a day x U, below a limit as well.
// Who has too few runs for such a bound is judged by a census instead: each
// account and each pipeline must have been clean on two days, or whenever it ran
// if the window has not as many cycles. A team that is within three deviations of
// enough runs for a bound must have had no bad one: without that, of teams of 560
// runs a window that break a quarter more than they may, three of four would be
// called ready on some day of three months; with it one of fifty is.
//
// # What went unwatched
//
// The share of a team's requests that went unwatched is that of its own which a
// gateway had to drop, of those and the ones that were recorded, plus the share of
// the window in which a gateway lost requests of which nobody knows the team, as one
// that dies does. The latter counts by time and not by requests: how many there were
// says how busy all teams were, and who floods the gateways could make the share as
// large, or as small, as he likes. It counts as a whole however many other gateways
// there were, for the workers of a team may all be at the one.
//
// Nor is a team watched whose evidence a gateway has not recorded for more than 20
// minutes. Until then the window ends where the evidence does.
//
// So nothing that another team does, or loses, changes a report.
//
// # What one account can do
//
// Its clean runs close nothing of another account and make no raise reach
// further; they do count in the shares, and a team whose runs were too few for a
// bound may have enough with them.
package readiness
