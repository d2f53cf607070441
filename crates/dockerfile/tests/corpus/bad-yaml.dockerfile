version: "3"
services:
  a: b
