package reconcile

// HarmOf is the rule of the automatic rollback.
var HarmOf = harm
