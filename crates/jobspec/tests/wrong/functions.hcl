locals {
  a = file("x")
  b = uper("x")
  c = upper(["x"])
  d = join(",")
  e = upper(attr.cpu.arch)
  f = timestamp()
}
job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
