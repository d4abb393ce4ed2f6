package agent

// ReadWork lets the fuzzer read replies: the family, batch and tasks.
func ReadWork(body []byte) (family, batch string, tasks []string, err error) {
	w, err := readWork(body)
	return w.family, w.batch, w.tasks, err
}

// ReadCall lets the fuzzer read calls: the worker, task, family and batch.
func ReadCall(path, query, contentType string, body []byte) (worker, task, family, batch string, err error) {
	c, err := readCall(path, query, contentType, body)
	return c.worker, c.task, c.family, c.batch, err
}
