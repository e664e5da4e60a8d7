"""Files in and out: BEIR folders, tables of known answers, documents cut into passages."""
