"""What a stranger may send: targets that take any bytes, the fuzzer that runs them, and peers that mean no good."""
