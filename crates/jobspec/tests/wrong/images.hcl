job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "registry.example/web@sha256:0011"
      }
    }
  }
  group "b" {
    task "server" {
      driver = "docker"
      config {
        image = "Web Server"
      }
    }
  }
  group "c" {
    task "server" {
      driver = "docker"
      config {
        image = "web:${attr.cpu.arch}"
      }
    }
  }
}
