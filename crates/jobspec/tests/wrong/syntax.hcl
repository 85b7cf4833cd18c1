job "web" {
  type = 
}
