variable "stage" {
  type = string
}
job "web" {
  type = "system"
  node_pool = var.stage
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
