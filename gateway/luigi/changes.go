package luigi

import "crossfade/gateway/identity"

// Changes reports whether a call of the method leaves the scheduler other than
// it was, so that it must not be made by a page of another site. A method that
// is not known may. Reading a message's response is a view by its rights and
// changes by its effect: the scheduler hands it out once.
func Changes(method string) bool {
	return procedures[method].action != identity.ActionView || method == "get_scheduler_message_response"
}
