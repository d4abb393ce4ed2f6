package agent_test

func child(string) {}
