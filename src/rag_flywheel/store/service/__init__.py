"""The records of the HTTP service, apart from any index: keys, repeated requests, jobs."""
