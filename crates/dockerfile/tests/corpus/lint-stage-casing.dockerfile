FROM busybox AS Foo
FROM foo AS BAR
