package luigi

import "crossfade/gateway/identity"

// procedure is what is fixed about one method of the scheduler.
type procedure struct {
	action   identity.Action
	families bool
	worker   workerRole
	task     string // the argument that holds a task id
	family   string // the argument that holds a task family
}

// workerRole is what the argument "worker" means to a procedure.
type workerRole uint8

const (
	workerIgnored  workerRole = iota // the scheduler does not look at it
	workerSpeaks                     // the caller itself
	workerIsTarget                   // the worker that something is done to
)

// procedures are the 39 methods that luigid 3.8.1 answers. The table is never
// changed.
var procedures = map[string]procedure{
	"add_task":                    {identity.ActionExecute, true, workerSpeaks, "task_id", "family"},
	"add_task_batcher":            {identity.ActionExecute, true, workerSpeaks, "", "task_family"},
	"announce_scheduling_failure": {identity.ActionExecute, true, workerSpeaks, "", "family"},
	"get_work":                    {identity.ActionExecute, true, workerSpeaks, "", ""},

	"ping":          {identity.ActionExecute, false, workerSpeaks, "", ""},
	"count_pending": {identity.ActionExecute, false, workerSpeaks, "", ""},
	"add_worker":    {identity.ActionExecute, false, workerSpeaks, "", ""},

	"set_task_status_message":         {identity.ActionExecute, true, workerIgnored, "task_id", ""},
	"set_task_progress_percentage":    {identity.ActionExecute, true, workerIgnored, "task_id", ""},
	"decrease_running_task_resources": {identity.ActionExecute, true, workerIgnored, "task_id", ""},
	"report_task_statistics":          {identity.ActionExecute, true, workerIgnored, "task_id", ""},
	"add_scheduler_message_response":  {identity.ActionExecute, true, workerIgnored, "task_id", ""},

	"fetch_error":                    {identity.ActionView, true, workerIgnored, "task_id", ""},
	"dep_graph":                      {identity.ActionView, true, workerIgnored, "task_id", ""},
	"inverse_dep_graph":              {identity.ActionView, true, workerIgnored, "task_id", ""},
	"get_task_status_message":        {identity.ActionView, true, workerIgnored, "task_id", ""},
	"get_task_progress_percentage":   {identity.ActionView, true, workerIgnored, "task_id", ""},
	"get_running_task_resources":     {identity.ActionView, true, workerIgnored, "task_id", ""},
	"get_scheduler_message_response": {identity.ActionView, true, workerIgnored, "task_id", ""},

	"task_list":     {identity.ActionView, false, workerIgnored, "", ""},
	"graph":         {identity.ActionView, false, workerIgnored, "", ""},
	"task_search":   {identity.ActionView, false, workerIgnored, "", ""},
	"worker_list":   {identity.ActionView, false, workerIgnored, "", ""},
	"resource_list": {identity.ActionView, false, workerIgnored, "", ""},

	"has_task_history": {identity.ActionView, false, workerIgnored, "", ""},
	"is_paused":        {identity.ActionView, false, workerIgnored, "", ""},
	"is_pause_enabled": {identity.ActionView, false, workerIgnored, "", ""},

	"mark_as_done":     {identity.ActionAdmin, true, workerIgnored, "task_id", ""},
	"forgive_failures": {identity.ActionAdmin, true, workerIgnored, "task_id", ""},
	"re_enable_task":   {identity.ActionAdmin, true, workerIgnored, "task_id", ""},

	"send_scheduler_message": {identity.ActionAdmin, true, workerIsTarget, "task", ""},

	"disable_worker":       {identity.ActionAdmin, false, workerIsTarget, "", ""},
	"set_worker_processes": {identity.ActionAdmin, false, workerIsTarget, "", ""},

	"pause":                       {identity.ActionAdmin, false, workerIgnored, "", ""},
	"unpause":                     {identity.ActionAdmin, false, workerIgnored, "", ""},
	"prune":                       {identity.ActionAdmin, false, workerIgnored, "", ""},
	"update_resource":             {identity.ActionAdmin, false, workerIgnored, "", ""},
	"update_resources":            {identity.ActionAdmin, false, workerIgnored, "", ""},
	"update_metrics_task_started": {identity.ActionAdmin, false, workerIgnored, "", ""},
}

// Procedure tells of a procedure what its name alone says: the action that it
// needs a right to, and whether that depends on particular task families, as
// Call.Families. known is false for a name that the scheduler does not have.
func Procedure(name string) (action identity.Action, families, known bool) {
	p, known := procedures[name]
	return p.action, p.families, known
}
