variable "stage" {
  type = strng
}
variable "version" {
  default = "1"
}
locals {
  a = var.verzion
  b = local.c
  c = local.b
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
