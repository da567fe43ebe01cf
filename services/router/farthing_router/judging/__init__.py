"""Whether an answer is good enough, judged without knowing the right one."""
