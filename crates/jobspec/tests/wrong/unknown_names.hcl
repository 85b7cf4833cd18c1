job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
        command = vra.cmd
        args = ["${HOME}", var.missing, local.missing, attr.cpu.arch]
      }
    }
  }
}
