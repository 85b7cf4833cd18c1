job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "exec"
      config {
        image = "web:1"
      }
    }
    task "b" {
      config {
      }
    }
    task "c" {
      driver = "dockr"
    }
  }
}
