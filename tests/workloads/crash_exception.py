# An exception that nobody catches: exit code 1.
def sink(boat):
    return boat["keel"]


sink({})
