locals {
  a = 1 / 0
  b = "x" + 1
  c = attr.cpu.arch == "arm64" ? 1 : 2
  d = [1, 2][5]
  e = { x = 1 }.y
  f = "${[1]}"
  g = !1
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
