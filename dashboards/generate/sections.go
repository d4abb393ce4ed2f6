package main

// The sections of the runbook that panels link to: the alert that watches what
// the panel shows, as a link on a page writes its heading.
const (
	sectionTop           = "" // the page itself: nothing pages for what is only progress
	sectionMismatch      = "crossfademismatchburn"
	sectionRefused       = "crossfaderefusedknownruns"
	sectionRollback      = "crossfadeautomaticrollback"
	sectionUnwatched     = "crossfadeteamunwatched"
	sectionStaleEvidence = "crossfadeevidencestale"
	sectionKeySet        = "crossfadekeysetageing"
	sectionProvider      = "crossfadeidentityproviderfailing"
	sectionRedis         = "crossfaderedisdown"
	sectionTable         = "crossfaderollouttableold"
	sectionAudit         = "crossfadeauditfailing"
	sectionEvidenceLost  = "crossfadeevidencelost"
	sectionSkew          = "crossfadeconfigurationskew"
	sectionReload        = "crossfadereloadfailed"
	sectionCertificate   = "crossfadecertificateexpiring"
	sectionLegacy        = "crossfadelegacyafterretirement"
	sectionSecurity      = "crossfadesecuritysignals"
)
