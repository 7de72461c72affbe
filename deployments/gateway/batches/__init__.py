"""`POST /v1/emotion:batch`: many utterances in one request, an answer or a refusal for each."""
