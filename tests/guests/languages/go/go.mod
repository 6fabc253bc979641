module faulty

go 1.25

require message-flow/sdk v0.0.0

replace message-flow/sdk => ../../../../sdk/go
