package readiness

import "crossfade/gateway/identity"

// Advice says in one sentence what to do about a reason for which runs go wrong.
// Of a word that is not on the list it says how to find out.
func Advice(reason identity.Reason) string {
	if text, ok := advice[reason]; ok {
		return text
	}
	return "Look up one of its requests with `crossfade explain TRACE`."
}

// advice has a sentence for each reason; it speaks to its owner.
var advice = map[identity.Reason]string{
	identity.TokenAbsent:         "Start workers through `crossfade agent`, or let the client send its token beside the password in Crossfade-Token.",
	identity.SchemeUnsupported:   "Send the token as `Authorization: Bearer`.",
	identity.MultipleCredentials: "Send one password or key, and the token beside it in Crossfade-Token.",
	identity.TokenInQuery:        "Send the token in a header, and revoke the one that stood in the URL.",
	identity.TokenOversize:       "Ask the provider for a smaller token: fewer groups, or groups as application roles.",

	identity.MalformedJWT:      "Send the access token as the provider gave it, with nothing before, after or in between.",
	identity.ClaimTypeInvalid:  "Repair the claim mapping at the provider: a registered claim has the wrong JSON type.",
	identity.AmbiguousClaim:    "Repair the claim mapping at the provider: a claim stands there twice or in two spellings.",
	identity.CritUnsupported:   "Ask the provider for a token without critical header extensions.",
	identity.JWEUnsupported:    "Ask the provider for a signed token in place of an encrypted one.",
	identity.OpaqueUnsupported: "Ask the provider for a JWT access token for this gateway's audience; an opaque one cannot be verified here.",

	identity.IssuerUnknown:       "Request the token from a configured issuer; `crossfade token inspect` shows which one it is from.",
	identity.AlgNotAllowed:       "Let the provider sign with an algorithm on the issuer's list, as RS256 or ES256.",
	identity.AlgKeyMismatch:      "Request a new token; if it goes on, the provider publishes a key of another kind than it signs with.",
	identity.KidUnknown:          "Request a new token; if it goes on, the provider signs with a key that it does not publish.",
	identity.KidRefreshThrottled: "Wait a minute; if it goes on, look at how often the provider rotates its keys.",
	identity.JWKSUnavailable:     "See whether the gateway reaches the provider's key set, and whether the provider is up.",

	identity.SignatureInvalid: "Find out who sent it: it is a forgery, or signed with a key that is not the provider's.",

	identity.ExpiredMidRun:      "Let the client renew its token while it runs; `crossfade agent` does so by itself.",
	identity.Expired:            "Request the token when the run starts, and renew it before it expires.",
	identity.NotYetValid:        "Set the clocks of the client's machine and of the provider.",
	identity.IATInFuture:        "Set the clocks of the client's machine and of the provider.",
	identity.ExpMissing:         "Let the provider put an expiry into its access tokens.",
	identity.LifetimeExceedsMax: "Let the provider issue tokens of a shorter life, or ask the platform to allow this one.",

	identity.AudMissing:      "Let the provider put this gateway's audience into the token.",
	identity.AudMismatch:     "Request the token for this gateway's audience.",
	identity.AzpMismatch:     "Request the token with the client that is registered for this account.",
	identity.TenantMismatch:  "Request the token from your own tenant.",
	identity.TypMismatch:     "Send an access token; this one is of another type.",
	identity.IDTokenAsAccess: "Send the access token and not the ID token.",

	identity.SubjectMissing:    "Let the provider put a subject into its access tokens.",
	identity.GroupsMissing:     "Let the provider put the groups claim into the token of this client.",
	identity.GroupsOverage:     "Let the provider send only the groups of this application, or application roles: it leaves out too many.",
	identity.EmailUnverified:   "Let the provider verify the address, or map the account by its subject.",
	identity.PrincipalUnmapped: "Map the token's subject to the account in the principals file.",
	identity.PrincipalMismatch: "Correct the principals file, or let the client use its own token: password and token are of two accounts.",
	identity.TeamUnmapped:      "Name the team of this identity in the principals file, or in the claim rules of the roles file.",
	identity.TeamMismatch:      "Correct the principals file: password and token are of two teams.",

	identity.RoleMissing:       "Give the account's token the roles that its password has.",
	identity.ActionDenied:      "Give the account a role that allows this action, or stop doing it.",
	identity.TaskFamilyDenied:  "Add the task family to a role of the account, or stop running it with this account.",
	identity.InsufficientScope: "Request the token with the scope that the issuer's configuration asks for.",

	identity.LegacyUnknown: "Correct the user name or the secret of the client.",
	identity.LegacyExpired: "Take the client to OIDC; its static credential has expired.",
	identity.LegacyRevoked: "Take the client to OIDC; its static credential was revoked.",
	identity.LegacyRefused: "Start the worker through `crossfade agent`: this run must use OIDC.",
	identity.LegacyRetired: "Start the worker through `crossfade agent`: the team's passwords have ended.",

	identity.RPCAmbiguous:   "Send exactly one `data` field, as Luigi's own client does.",
	identity.RPCUnknown:     "Use a method that the scheduler has.",
	identity.TaskUnknown:    "Register the task before reporting on it, as Luigi's own worker does.",
	identity.WorkerMismatch: "Find out why two accounts use one worker id.",
	identity.CrossSite:      "Find out which page sent the request; it was not one of this address.",
	identity.BodyOversize:   "Send smaller bodies, or ask the platform to raise upstream.max_body.",
	identity.Throttled:      "Find the client that tries so often, and correct its password.",

	identity.ProxyUntrusted:    "Find out who asks the gateway directly; if it is the proxy, name its address in listen.trusted_proxies.",
	identity.OriginalAmbiguous: "Compare the proxy's configuration with the example in deploy; what it does not set, clients can.",

	identity.ShadowTimeout:    "Look at the gateway's load, and at how fast the provider's keys are served.",
	identity.ShadowShed:       "Give the gateway more processors or replicas, or a longer shadow queue.",
	identity.PolicyError:      "Look at the gateway's log and roles file.",
	identity.StoreUnavailable: "Look at Redis; the gateway could not reach it.",
	identity.ConfigSkew:       "Bring all gateways to the same configuration.",
	identity.AuditUnavailable: "Look at the disk of the audit log.",
}
