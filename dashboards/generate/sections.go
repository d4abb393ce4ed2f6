package main

// The sections of the runbook that panels link to: the alert that watches what
// the panel shows, as a link on a page writes its heading.
const (
	sectionTop           = "" // the page itself: nothing pages for what is only progress
	sectionMismatch      = "crossfademismatchburnfast"
	sectionRefused       = "crossfadeknownrunsrefused"
	sectionRollback      = "crossfadeautomaticrollback"
	sectionGlass         = "crossfadeglassbroken"
	sectionUnwatched     = "crossfadeteamunwatched"
	sectionStaleEvidence = "crossfadeevidencestale"
	sectionKeySet        = "crossfadekeysetaging"
	sectionProvider      = "crossfadeidentityproviderfailing"
	sectionRedis         = "crossfaderedisdown"
	sectionTable         = "crossfaderollouttableold"
	sectionAudit         = "crossfadeauditfailing"
	sectionEvidenceLost  = "crossfadeevidencelost"
	sectionSkew          = "crossfadeconfigskew"
	sectionReload        = "crossfadeconfigreloadfailed"
	sectionCertificate   = "crossfadecertificateexpiressoon"
	sectionLegacy        = "crossfadelegacyafterretirement"
	sectionHurts         = "crossfaderaisehurts"
	sectionProbes        = "crossfadeprobesfailing"
	sectionAbsent        = "crossfadegatewayabsent"
	sectionAdmin         = "crossfadeadminrefused"
	sectionSecurity      = "crossfadeattacksuspected"
)
