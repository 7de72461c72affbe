"""One utterance: how it is read, admitted, recognised and answered, whichever route it comes by."""
