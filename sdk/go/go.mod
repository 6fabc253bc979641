module message-flow/sdk

go 1.25
