package token_test

func plugin() {}
